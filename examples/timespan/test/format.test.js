import assert from "node:assert/strict";
import { test } from "node:test";

import { format } from "../src/index.js";

test("the two largest units are written", () => {
  assert.equal(format(5400), "1h 30m");
  assert.equal(format(90061), "1d 1h");
  assert.equal(format(7), "7s");
});

test("nothing is nothing", () => {
  assert.equal(format(0), "0s");
  assert.equal(format(0.2), "0s");
});

test("almost a minute is a minute", () => {
  assert.equal(format(59.4), "59s");
  assert.equal(format(59.7), "1m");
});

test("what is no span is refused", () => {
  for (const value of [-1, NaN, Infinity]) assert.throws(() => format(value), RangeError);
});
