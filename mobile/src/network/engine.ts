/** The page's side of the worker: requests and their answers; a worker that dies fails what waits for it. */

import { BadPicture, type BadReason } from "../picture/facts";
import type { WindowsWanted } from "../picture/windows";
import { BadModel } from "./card";
import type { DecodeReply, OpenReply, Picture, Provider, Reply, Request, RunReply } from "./protocol";

interface Waiting {
  resolve(value: never): void;
  reject(error: Error): void;
}

export class Engine {
  private worker: Worker | null = null;
  private readonly waiting = new Map<number, Waiting>();
  private count = 0;

  /** Called when the worker died, and every network that it had opened with it. */
  constructor(private readonly onLost: () => void) {}

  open(key: string, provider: Provider, model: ArrayBuffer): Promise<OpenReply> {
    return this.ask({ kind: "open", key, provider, model }, [model]);
  }

  decode(file: Blob, wanted: readonly WindowsWanted[]): Promise<DecodeReply> {
    return this.ask({ kind: "decode", file, wanted });
  }

  run(key: string, picture: Picture): Promise<RunReply> {
    return this.ask({ kind: "run", key, picture });
  }

  private ask<T>(request: Request, transfer: Transferable[] = []): Promise<T> {
    this.worker ??= this.start();
    const id = this.count++;
    const answer = new Promise<T>((resolve, reject) => this.waiting.set(id, { resolve, reject }));
    this.worker.postMessage({ id, request }, transfer);
    return answer;
  }

  private start(): Worker {
    const worker = new Worker(new URL("./engine.worker.ts", import.meta.url), { type: "module" });
    worker.addEventListener("message", ({ data }: MessageEvent<Reply>) => this.receive(data));
    worker.addEventListener("error", (event) => this.lose(event.message));
    worker.addEventListener("messageerror", () => this.lose("a message could not be read"));
    return worker;
  }

  private receive(reply: Reply): void {
    const waiting = this.waiting.get(reply.id);
    this.waiting.delete(reply.id);
    if ("failure" in reply) {
      const { name, reason, detail } = reply.failure;
      waiting?.reject(name === "BadPicture" ? new BadPicture(reason as BadReason, detail) : new BadModel(detail));
    } else waiting?.resolve(reply.value as never);
  }

  private lose(message: string): void {
    this.worker?.terminate();
    this.worker = null;
    const lost = [...this.waiting.values()];
    this.waiting.clear();
    this.onLost();
    for (const each of lost) each.reject(new BadModel(message || "the computation stopped"));
  }
}
