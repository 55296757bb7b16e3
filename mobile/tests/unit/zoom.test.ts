/** Enlarging keeps the point under the finger, and the picture covers its frame. */

import { describe, expect, test } from "vitest";
import { enlarged, pinched, within } from "../../src/screens/zoom";

const WHOLE = { scale: 1, x: 0, y: 0 };

/** The point of the picture, in its own pixels, that lies at a point of the frame. */
function under({ scale, x, y }: typeof WHOLE, point: { x: number; y: number }) {
  return { x: (point.x - x) / scale, y: (point.y - y) / scale };
}

describe("zoom", () => {
  test("keeps what lies under the pointer", () => {
    const point = { x: 70, y: 30 };
    const first = enlarged(WHOLE, 2.5, point);
    expect(under(first, point)).toEqual({ x: 70, y: 30 });
    const second = enlarged(first, 1.4, { x: 20, y: 90 });
    expect(under(second, { x: 20, y: 90 }).x).toBeCloseTo(under(first, { x: 20, y: 90 }).x);
  });

  test("ends at eight times and at the whole picture", () => {
    expect(enlarged(WHOLE, 100, { x: 5, y: 5 }).scale).toBe(8);
    expect(enlarged({ scale: 2, x: -10, y: -10 }, 0.1, { x: 5, y: 5 }).scale).toBe(1);
  });

  test("follows two fingers that part and move", () => {
    const before = [{ x: 40, y: 50 }, { x: 60, y: 50 }] as const;
    const after = [{ x: 50, y: 70 }, { x: 90, y: 70 }] as const;
    const place = pinched(WHOLE, before, after);
    expect(place.scale).toBe(2);
    // What was between the fingers is between them still.
    expect(under(place, { x: 70, y: 70 })).toEqual({ x: 50, y: 50 });
  });

  test("leaves no empty border", () => {
    expect(within({ scale: 2, x: 30, y: -500 }, 100, 80)).toEqual({ scale: 2, x: 0, y: -80 });
    expect(within(enlarged({ scale: 3, x: -150, y: -100 }, 0.01, { x: 0, y: 0 }), 100, 80)).toEqual({ scale: 1, x: 0, y: 0 });
  });
});
