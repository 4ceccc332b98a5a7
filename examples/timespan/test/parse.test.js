import assert from "node:assert/strict";
import { test } from "node:test";

import { parse } from "../src/index.js";

test("units add up", () => {
  assert.equal(parse("1h 30m"), 5400);
  assert.equal(parse("  2d   1.5s "), 172801.5);
});

test("what is no span is refused", () => {
  for (const text of ["", "1", "h", "1h30m", "-1s", "1w"]) assert.throws(() => parse(text), RangeError);
});
