import { expect, test } from "vitest";
import { readRun } from "../../src/data/run";
import { firstView, format, parse, settled, type State } from "../../src/state";
import { RAW_RUN } from "./raw";

const run = readRun(RAW_RUN);

test("without a query the false alarms of the first detector in the first cell are shown, surest first", () => {
  const { state, unknown } = parse("", run);
  expect(state).toEqual(firstView(run));
  expect([state.cell, state.detector, state.mix, state.error, state.sort]).toEqual(["64/none", "svm", "combined", "false-alarm", "-p"]);
  expect(unknown).toEqual([]);
});

test("an address is what a report's link has", () => {
  const query = "?cell=64/q20&detector=svm&mix=combined&error=false-alarm&sort=-p";
  expect(format(parse(query, run).state)).toBe(query);
});

test("every part of a state survives its address", () => {
  const state: State = {
    ...{ cell: "64/q20", detector: "probe", mix: "combined", error: "missed", truth: "generated", verdict: "photograph" },
    ...{ source: "sd 14&ü", fold: 2, q: "a cat = 1 & ?", p: [0.9, 1], quality: [50, Infinity], size: [-Infinity, 512] },
    ...{ threshold: 0.25, sort: "-difference", than: "svm", pair: "first", picture: 7 },
  };
  expect(parse(format(state), run).state).toEqual(state);
});

test("a query without a kind shows all pictures", () => {
  expect(parse("?cell=64/q20", run).state).toMatchObject({ detector: "svm", error: null, sort: null });
});

test("what the run does not have is told of, and left out", () => {
  const { state, unknown } = parse("?cell=1024/none&detector=svm&p=0.9..0.1&picture=10&threshold=2&fold=x&sort=up&than=nobody", run);
  expect(unknown).toEqual(["cell=1024/none", "fold=x", "p=0.9..0.1", "threshold=2", "sort=up", "than=nobody", "picture=10"]);
  expect(state).toMatchObject({ cell: "64/none", p: null, picture: null, than: null });
});

test("nothing is compared with itself", () => {
  const compared: State = { ...firstView(run), than: "svm", pair: "both", sort: "-difference" };
  expect(settled(compared)).toMatchObject({ than: null, pair: null, sort: null });
  expect(settled({ ...compared, than: "64/q20" })).toMatchObject({ than: "64/q20", pair: "both", sort: "-difference" });
});
