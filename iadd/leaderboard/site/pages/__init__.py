"""The pages: a module each, which gives `pages(content)` and, for the navigation, its `NAV`."""
