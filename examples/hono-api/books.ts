export interface Book {
  isbn: string;
  title: string;
  price: number;
}

const books: Book[] = [
  { isbn: "9780141439518", title: "Pride and Prejudice", price: 8.99 },
  { isbn: "9780141441146", title: "Jane Eyre", price: 9.99 },
  { isbn: "9780141439556", title: "Wuthering Heights", price: 7.99 },
];

/** Return the books whose title contains the text. */
export function search(text: string): Book[] {
  const wanted = text.toLowerCase();
  return books.filter((book) => book.title.toLowerCase().includes(wanted));
}

export function find(isbn: string): Book | undefined {
  return books.find((book) => book.isbn === isbn);
}
