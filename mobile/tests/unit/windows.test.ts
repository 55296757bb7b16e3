import { expect, test } from "vitest";
import { windowPlaces } from "../../src/picture/windows";
import { fixture } from "../fixtures";

const { places } = fixture("windows.json") as {
  places: { height: number; width: number; places: [number, number][] }[];
};

test("windows lie where Python draws them", async () => {
  for (const { height, width, places: expected } of places) expect(await windowPlaces(height, width, 256, expected.length)).toEqual(expected);
  expect(places.length).toBeGreaterThan(3);
});
