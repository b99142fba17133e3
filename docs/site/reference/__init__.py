"""The reference of the documentation, written from the code.

Each module writes one kind of table or page. ``make reference`` puts them into docs/,
where they can be read in the repository; ``make lint`` fails if they differ.
"""
