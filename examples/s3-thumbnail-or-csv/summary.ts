import { parse } from "csv-parse/sync";

export interface Summary {
  rows: number;
  /** Columns that contain only numbers. */
  columns: Record<string, { min: number; max: number; sum: number }>;
}

/** Summarise CSV text whose first line names the columns. */
export function summarise(csv: string): Summary {
  const rows: Record<string, string>[] = parse(csv, {
    bom: true,
    columns: true,
    skip_empty_lines: true,
    trim: true,
  });
  const columns: Summary["columns"] = {};
  for (const name of Object.keys(rows[0] ?? {})) {
    const cells = rows.map((row) => row[name]);
    const values = cells.map(Number);
    if (cells.includes("") || values.some(Number.isNaN)) continue;
    columns[name] = {
      min: Math.min(...values),
      max: Math.max(...values),
      sum: values.reduce((sum, value) => sum + value, 0),
    };
  }
  return { rows: rows.length, columns };
}
