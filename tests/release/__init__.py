"""Steps of a release: the locks, and checks of what is to be published."""
