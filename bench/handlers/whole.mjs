/** Returns what it gets, whatever its size. */
export function handler(event) {
  return event;
}
