/** Few requests for many small pieces. */

export interface Piece {
  readonly row: number;
  readonly start: number;
  /** Before which byte it ends. */
  readonly end: number;
}

export interface Request {
  readonly start: number;
  readonly end: number;
  readonly pieces: readonly Piece[];
}

/** Merge pieces of one file that lie at most `gap` bytes apart into requests of at most `most` bytes. */
export function merge(pieces: readonly Piece[], gap: number, most: number): Request[] {
  const requests: { start: number; end: number; pieces: Piece[] }[] = [];
  for (const piece of [...pieces].sort((a, b) => a.start - b.start)) {
    const last = requests.at(-1);
    if (last && piece.start - last.end <= gap && piece.end - last.start <= most) {
      last.end = Math.max(last.end, piece.end);
      last.pieces.push(piece);
    } else {
      requests.push({ start: piece.start, end: piece.end, pieces: [piece] });
    }
  }
  return requests;
}
