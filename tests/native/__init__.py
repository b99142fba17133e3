"""Support for the tests of the library that forks Deno."""
