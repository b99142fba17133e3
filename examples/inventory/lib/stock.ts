import { OutOfStockError, UnknownItemError } from "stock/errors.ts";

export interface Item {
  sku: string;
  name: string;
  price: number;
  stock: number;
}

/** Read the items from the file beside this example's handler. */
export async function loadItems(): Promise<Item[]> {
  const file = new URL("../items.json", import.meta.url);
  return JSON.parse(await Deno.readTextFile(file));
}

/** Find an item by its number. */
export function find(items: Item[], sku: string): Item {
  const item = items.find((candidate) => candidate.sku === sku);
  if (item === undefined) {
    throw new UnknownItemError(sku, items.map((candidate) => candidate.sku));
  }
  return item;
}

/** Reserve pieces of an item and return their price. */
export function reserve(items: Item[], sku: string, quantity: number) {
  const item = find(items, sku);
  if (item.stock < quantity) {
    throw new OutOfStockError(sku, quantity, item.stock);
  }
  item.stock -= quantity;
  return { sku, quantity, total: item.price * quantity, left: item.stock };
}
