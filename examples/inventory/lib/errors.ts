/** There is no item with this number. */
export class UnknownItemError extends Error {
  override name = "UnknownItemError";

  constructor(sku: string, known: string[]) {
    super(`No item ${sku}; there are ${known.join(", ")}`);
  }
}

/** Fewer pieces are left than were ordered. */
export class OutOfStockError extends Error {
  override name = "OutOfStockError";

  constructor(sku: string, wanted: number, left: number) {
    super(`Cannot reserve ${wanted} of ${sku}: ${left} left`);
  }
}
