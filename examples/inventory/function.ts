import { type Item, loadItems, reserve } from "stock/stock.ts";

interface Order {
  sku: string;
  quantity: number;
}

interface Event {
  order?: Order[];
}

/** Loaded once per process, before its event arrives. */
const items: Item[] = await loadItems();

export function handler(event: Event) {
  if (event.order === undefined) {
    console.log(`Listing ${items.length} items`);
    return { items: items.filter((item) => item.stock > 0) };
  }
  try {
    const lines = event.order.map((line) =>
      reserve(items, line.sku, line.quantity)
    );
    const total = lines.reduce((sum, line) => sum + line.total, 0);
    console.log(`Reserved ${lines.length} lines for ${total}`);
    return { lines, total };
  } catch (error) {
    throw new Error("The order cannot be fulfilled", { cause: error });
  }
}
