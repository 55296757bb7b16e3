/** Decodes pictures and runs networks, off the page's thread, one request after the other. */

import type { InferenceSession, Tensor } from "onnxruntime-web";
import wasmUrl from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";
import webgpuUrl from "onnxruntime-web/ort-wasm-simd-threaded.asyncify.wasm?url";
import { decodePicture } from "../picture/decode";
import { BadPicture } from "../picture/facts";
import type { DecodeReply, Failure, OpenReply, Picture, Provider, Reply, Request, RunReply } from "./protocol";

type Runtime = typeof import("onnxruntime-web");

const sessions = new Map<string, { session: InferenceSession; runtime: Runtime }>();
const runtimes = new Map<Provider, Promise<Runtime>>();
let previous: Promise<void> = Promise.resolve();

self.addEventListener("message", ({ data }: MessageEvent<{ id: number; request: Request }>) => {
  previous = previous.then(() => respond(data.id, data.request));
});

async function respond(id: number, request: Request): Promise<void> {
  let reply: Reply;
  const transfer: Transferable[] = [];
  try {
    const value = await handle(request);
    if ("pixels" in value) transfer.push(value.pixels.buffer, ...value.windows.map(({ pixels }) => pixels.buffer));
    reply = { id, value };
  } catch (error) {
    reply = { id, failure: failureOf(error, request) };
  }
  self.postMessage(reply, { transfer });
}

function handle(request: Request): Promise<OpenReply | DecodeReply | RunReply> {
  switch (request.kind) {
    case "open":
      return open(request.key, request.provider, request.model);
    case "decode":
      return decodePicture(request.file, request.wanted);
    case "run":
      return run(request.key, request.picture);
  }
}

function failureOf(error: unknown, request: Request): Failure {
  if (error instanceof BadPicture) return { name: "BadPicture", reason: error.reason, detail: error.detail };
  // An allocation that failed: large pictures on small devices.
  if (request.kind === "decode") return { name: "BadPicture", reason: "out-of-memory", detail: String(error) };
  return { name: "BadModel", reason: "", detail: error instanceof Error ? error.message : String(error) };
}

/** The runtime of a provider; that of WebGPU is a download of its own, made only here. */
function runtimeOf(provider: Provider): Promise<Runtime> {
  const known = runtimes.get(provider);
  if (known) return known;
  const loading = provider === "webgpu" ? loadWebgpu() : loadWasm();
  runtimes.set(provider, loading);
  loading.catch(() => runtimes.delete(provider));
  return loading;
}

async function loadWasm(): Promise<Runtime> {
  const runtime = await import("onnxruntime-web/wasm");
  runtime.env.wasm.wasmPaths = { wasm: wasmUrl };
  runtime.env.wasm.numThreads = 1;
  runtime.env.logLevel = "error";
  return runtime;
}

async function loadWebgpu(): Promise<Runtime> {
  const gpu = (navigator as { gpu?: { requestAdapter(): Promise<unknown> } }).gpu;
  if (!gpu || !(await gpu.requestAdapter())) throw new Error("this browser offers no WebGPU adapter");
  const runtime = await import("onnxruntime-web/webgpu");
  runtime.env.wasm.wasmPaths = { wasm: webgpuUrl };
  runtime.env.wasm.numThreads = 1;
  runtime.env.logLevel = "error";
  return runtime;
}

async function open(key: string, provider: Provider, model: ArrayBuffer): Promise<OpenReply> {
  const start = performance.now();
  const runtime = await runtimeOf(provider);
  const session = await runtime.InferenceSession.create(model, {
    executionProviders: [provider],
    graphOptimizationLevel: "all",
  });
  await sessions.get(key)?.session.release();
  sessions.set(key, { session, runtime });
  return { openMs: performance.now() - start };
}

async function run(key: string, { pixels, height, width }: Picture): Promise<RunReply> {
  const opened = sessions.get(key);
  if (!opened) throw new Error(`the network ${key} is not open`);
  const picture = new opened.runtime.Tensor("uint8", pixels, [height, width, 3]);
  const start = performance.now();
  const found = await opened.session.run({ picture }, ["logits", "probabilities", "familiarity", "activation"]);
  const graphMs = performance.now() - start;
  const [, rows, columns] = tensorOf(found, "activation").dims;
  return {
    graphMs,
    logits: floatsOf(found, "logits"),
    probabilities: floatsOf(found, "probabilities"),
    familiarity: floatsOf(found, "familiarity"),
    activation: floatsOf(found, "activation"),
    activationSides: [rows ?? 0, columns ?? 0],
  };
}

function tensorOf(found: InferenceSession.OnnxValueMapType, name: string): Tensor {
  const tensor = found[name];
  if (!tensor) throw new Error(`the network has no output ${name}`);
  return tensor;
}

function floatsOf(found: InferenceSession.OnnxValueMapType, name: string): Float32Array {
  const { data } = tensorOf(found, name);
  if (!(data instanceof Float32Array)) throw new Error(`expected the output ${name} in float32`);
  // A copy: what the runtime returned may lie in its own memory.
  return data.slice();
}
