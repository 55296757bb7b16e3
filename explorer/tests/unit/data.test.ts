import { afterEach, expect, test, vi } from "vitest";
import { Host } from "../../src/data/host";
import { Damaged, Missing, NewerRun, TooMany, Unreachable } from "../../src/data/problems";
import { merge } from "../../src/data/ranges";
import { readRun } from "../../src/data/run";
import { matching } from "../../src/screens/compared";
import { texts } from "../../src/texts";
import { RAW_RUN } from "./raw";

const FILE = Uint8Array.from({ length: 100_000 }, (_, index) => index % 251);

afterEach(() => vi.unstubAllGlobals());

/** A host whose answers are `answer`'s; returns the ranges that it was asked for. */
function hostOf(answer: (range: string | null) => Response): (string | null)[] {
  const asked: (string | null)[] = [];
  vi.stubGlobal("fetch", async (_: string, init: RequestInit) => {
    const range = new Headers(init.headers).get("range");
    asked.push(range);
    return answer(range);
  });
  return asked;
}

function withPieces(range: string | null): Response {
  const [, first, last] = /bytes=(\d*)-(\d*)/.exec(range ?? "bytes=0-")!;
  const start = first ? Number(first) : FILE.length - Number(last);
  const end = first && last ? Number(last) + 1 : FILE.length;
  return new Response(FILE.slice(start, end), { status: 206, headers: { "content-range": `bytes ${start}-${end - 1}/${FILE.length}` } });
}

test("the end of a file comes with its size, and other bytes only when asked for", async () => {
  const asked = hostOf(withPieces);
  const file = await new Host("http://host/").open("a");
  expect(file.byteLength).toBe(FILE.length);
  expect(new Uint8Array(await file.slice(99_000))).toEqual(FILE.slice(99_000));
  expect(new Uint8Array(await file.slice(10, 20))).toEqual(FILE.slice(10, 20));
  expect(asked).toEqual(["bytes=-32768", "bytes=10-19"]);
});

test("a host without pieces sends each file once, which is told", async () => {
  const asked = hostOf(() => new Response(FILE.slice()));
  const told = vi.fn();
  const host = new Host("http://host/", told);
  const file = await host.open("a");
  expect(new Uint8Array(await file.slice(10, 20))).toEqual(FILE.slice(10, 20));
  const [one, other] = await Promise.all([host.piece("b", 5, 8), host.piece("b", 50, 52)]);
  expect([one.byteLength, other.byteLength]).toEqual([3, 2]);
  expect(asked).toEqual(["bytes=-32768", null]);
  expect(told).toHaveBeenCalledOnce();
});

test("a host that refuses too long a piece is asked for the file", async () => {
  hostOf((range) => (range ? new Response("", { status: 416 }) : new Response(FILE.slice(0, 10))));
  expect((await new Host("http://host/").open("a")).byteLength).toBe(10);
});

test("a missing file and a host that does not answer are two things", async () => {
  hostOf(() => new Response("", { status: 404 }));
  await expect(new Host("http://host/").json("a")).rejects.toThrow(Missing);
  vi.stubGlobal("fetch", () => Promise.reject(new TypeError("failed")));
  await expect(new Host("http://host/").json("a")).rejects.toThrow(Unreachable);
});

test("neighbouring pieces become one request, until it is long", () => {
  const piece = (row: number, start: number, end: number) => ({ row, start, end });
  const pieces = [piece(0, 100, 200), piece(1, 0, 100), piece(2, 205, 300), piece(3, 400, 500), piece(4, 500, 900)];
  expect(merge(pieces, 10, 450).map(({ start, end, pieces: of }) => [start, end, of.map(({ row }) => row)])).toEqual([
    [0, 300, [1, 0, 2]],
    [400, 500, [3]],
    [500, 900, [4]],
  ]);
});

test("run.json of a newer version, of too many pictures or of another kind is refused in one sentence", () => {
  expect(() => readRun({ ...RAW_RUN, version: 2 })).toThrow(NewerRun);
  expect(texts.problem(new NewerRun(2))).toContain("written by a newer telltale");
  expect(() => readRun({ ...RAW_RUN, pictures: 10_000_001 })).toThrow(TooMany);
  for (const raw of [null, [], 3, { version: 1 }, { ...RAW_RUN, cells: [] }, { ...RAW_RUN, sources: [{ name: "a", label: 2 }] }]) {
    expect(() => readRun(raw)).toThrow(Damaged);
  }
});

test("the report's test is found whichever way it was written, turned round if need be", () => {
  const run = readRun(RAW_RUN);
  const [probe, svm] = run.detectors;
  const [cell] = run.cells;
  const test = {
    ...{ resolution: "64", perturbation: "none", mix: "combined", detector: "probe", than_detector: "svm", than_perturbation: "none" },
    ...{ metric: "auroc", difference: -0.1, low: -0.2, high: null, p: 0.01 },
  };
  const view = { cell: cell!, mix: run.mixes[0]! };
  expect(matching([test], { ...view, detector: probe! }, { cell: cell!, detector: svm! })).toEqual([test]);
  expect(matching([test], { ...view, detector: svm! }, { cell: cell!, detector: probe! })).toMatchObject([{ difference: 0.1, low: null, high: 0.2, p: 0.01 }]);
  expect(matching([test], { ...view, detector: svm! }, { cell: run.cells[1]!, detector: svm! })).toEqual([]);
});
