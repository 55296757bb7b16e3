import { expect, test } from "vitest";
import { sorted, type Row } from "../../src/screens/many";
import { texts } from "../../src/texts";

type Listed = Pick<Row, "name" | "said">;

function row(name: string, pFake: number | null): Listed {
  return { name, said: pFake === null ? null : ({ pFake } as Row["said"]) };
}

const ROWS = [row("10.jpg", 0.2), row("9.jpg", null), row("a.jpg", 0.9), row("2.jpg", 0.2)];

test("a list is sorted by probability with what could not be read at its end, by name as people count, or not at all", () => {
  const names = (order: "given" | "probability" | "name") => sorted(ROWS, order).map(({ name }) => name);
  expect(names("given")).toEqual(["10.jpg", "9.jpg", "a.jpg", "2.jpg"]);
  expect(names("probability")).toEqual(["a.jpg", "10.jpg", "2.jpg", "9.jpg"]);
  expect(names("name")).toEqual(["2.jpg", "9.jpg", "10.jpg", "a.jpg"]);
});

test("a list is summed up in words", () => {
  expect(texts.many.summary(3, 1, 2, 0, 0)).toBe("3 pictures: 1 generated, 2 photographs, 0 without an answer.");
  expect(texts.many.summary(1_000, 1, 1, 0, 998)).toContain("1,000 pictures: 1 generated, 1 photograph, 0 without an answer, 998 could not be read.");
});
