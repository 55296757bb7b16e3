import { expect, test } from "vitest";
import { readRun } from "../../src/data/run";
import { filtered, sorted, type Columns } from "../../src/figures/choose";
import { firstView, type State } from "../../src/state";
import { RAW_RUN } from "./raw";

const SOURCES = ["coco", "sd14"];
const nothing: State = { ...firstView(readRun(RAW_RUN)), error: null, sort: null };

// Rows:       0     1    2    3    4    5 (no score)  6 (other mix)
const columns: Columns = {
  takesPart: Uint8Array.of(1, 1, 1, 1, 1, 1, 0),
  truth: Uint8Array.of(0, 0, 0, 1, 1, 1, 0),
  said: Uint8Array.of(0, 1, 1, 0, 1, 2, 1),
  scores: Float64Array.of(0.1, 0.6, 0.9, 0.2, 0.9, NaN, 0.7),
  sources: Int32Array.of(0, 0, 0, 1, 1, 1, 0),
  folds: Int32Array.of(0, 1, 0, 1, 0, 1, 0),
  shorterSides: Int32Array.of(100, 200, 300, 400, 500, 600, 700),
  qualities: Int32Array.of(90, -1, 50, 60, -1, 70, 80),
  margins: Float64Array.of(0.4, 0.1, 0.4, 0.3, 0.4, NaN, 0.2),
  pairs: Uint8Array.of(2, 0, 1, 3, 4, 4, 0),
  otherScores: Float64Array.of(0.15, 0.1, 0.8, 0.9, NaN, 0.5, 0.7),
};

const { pairs: _pairs, ...alone } = columns;

const rows = (change: Partial<State>, from: Columns = alone) => [...filtered({ ...nothing, ...change }, from, SOURCES)];

test.each([
  [{}, [0, 1, 2, 3, 4]],
  [{ error: "false-alarm" }, [1, 2]],
  [{ error: "missed" }, [3]],
  [{ error: "mistake" }, [1, 2, 3]],
  [{ error: "right" }, [0, 4]],
  [{ truth: "generated" }, [3, 4]],
  [{ verdict: "generated" }, [1, 2, 4]],
  [{ source: "sd14" }, [3, 4]],
  [{ fold: 1 }, [1, 3]],
  [{ p: [0.6, 0.9] }, [1, 2, 4]],
  [{ p: [0.6, 0.9], truth: "photograph" }, [1, 2]],
  [{ size: [200, Infinity], fold: 0 }, [2, 4]],
  [{ quality: [-Infinity, 60] }, [2, 3]],
] as [Partial<State>, number[]][])("the filter %o leaves rows %o", (change, left) => {
  expect(rows(change)).toEqual(left);
});

test("pictures are left in which the words that are sought were found", () => {
  expect(rows({ q: "cat" }, { ...alone, found: Uint8Array.of(1, 0, 1, 0, 1, 1, 1) })).toEqual([0, 2, 4]);
});

test("compared, pictures of which one alone is right are left, or what is asked for", () => {
  expect(rows({}, columns)).toEqual([1, 2]);
  expect(rows({ pair: "second" }, columns)).toEqual([2]);
  expect(rows({ pair: "neither" }, columns)).toEqual([3]);
  expect(rows({ pair: "all" }, columns)).toEqual([0, 1, 2, 3, 4]);
});

test.each([
  [null, [0, 1, 2, 3, 4]],
  ["-p", [2, 4, 1, 3, 0]],
  ["p", [0, 3, 1, 2, 4]],
  ["-margin", [0, 2, 4, 3, 1]],
  ["-difference", [3, 1, 2, 0, 4]],
  ["-size", [4, 3, 2, 1, 0]],
  ["-quality", [0, 3, 2, 1, 4]],
  ["quality", [2, 3, 0, 1, 4]],
] as [State["sort"], number[]][])("the order %s is %o: equal ones as in the files, those without a value last", (sort, order) => {
  expect([...sorted(filtered(nothing, alone, SOURCES), sort, columns)]).toEqual(order);
});

test("100,000 pictures are filtered and sorted in well under a fifth of a second", () => {
  const count = 100_000;
  const many: Columns = {
    takesPart: new Uint8Array(count).fill(1),
    truth: Uint8Array.from({ length: count }, (_, row) => row % 2),
    said: Uint8Array.from({ length: count }, (_, row) => (row >> 1) % 2),
    scores: Float64Array.from({ length: count }, (_, row) => (row * 7919) % count),
    sources: new Int32Array(count),
    folds: new Int32Array(count),
  };
  const began = performance.now();
  const order = sorted(filtered(nothing, many, SOURCES), "-p", many);
  expect(performance.now() - began).toBeLessThan(1_000);
  expect(many.scores[order[0]!]).toBe(count - 1);
});
