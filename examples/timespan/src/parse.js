import { UNITS } from "./units.js";

const SECONDS = new Map(UNITS);

/** Seconds of a span such as "1h 30m". Throws RangeError for what is none. */
export function parse(text) {
  const parts = text.trim().split(/\s+/);
  let seconds = 0;
  for (const part of parts) {
    const match = /^(\d+(?:\.\d+)?)([dhms])$/.exec(part);
    if (match === null) throw new RangeError(`no span of time: ${JSON.stringify(part)}`);
    seconds += Number(match[1]) * SECONDS.get(match[2]);
  }
  return seconds;
}
