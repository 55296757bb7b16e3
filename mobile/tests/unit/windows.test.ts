import { expect, test } from "vitest";
import { windowPlace } from "../../src/picture/windows";
import { fixture } from "../fixtures";

const { places } = fixture("windows.json") as {
  places: { index: number; height: number; width: number; place: [number, number] }[];
};

test("windows lie where Python draws them", async () => {
  for (const { index, height, width, place } of places) expect(await windowPlace(index, height, width, 256)).toEqual(place);
  expect(places.length).toBeGreaterThan(10);
});
