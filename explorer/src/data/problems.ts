/** What can be wrong with a run's files; `texts.problem` has the words. */

export abstract class Problem extends Error {}

/** The host answers, and has no such file. */
export class Missing extends Problem {
  constructor(
    readonly path: string,
    readonly status: number,
  ) {
    super(`${path}: HTTP ${status}`);
  }
}

/** The host does not answer. */
export class Unreachable extends Problem {
  constructor(readonly path: string) {
    super(`${path}: no answer`);
  }
}

/** run.json is of a version that this page does not know. */
export class NewerRun extends Problem {
  constructor(readonly version: number) {
    super(`version ${version}`);
  }
}

/** A file is not what it has to be. */
export class Damaged extends Problem {
  constructor(
    readonly path: string,
    readonly detail: string,
  ) {
    super(`${path}: ${detail}`);
  }
}

/** A file has other rows than run.json says. */
export class OtherRows extends Problem {
  constructor(
    readonly path: string,
    readonly rows: number,
    readonly expected: number,
  ) {
    super(`${path}: ${rows} rows, expected ${expected}`);
  }
}

/** More pictures than a browser can hold. */
export class TooMany extends Problem {
  constructor(
    readonly pictures: number,
    readonly most: number,
  ) {
    super(`${pictures} pictures, at most ${most}`);
  }
}
