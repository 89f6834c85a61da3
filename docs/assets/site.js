// Lets the keyboard scroll the tables that are wider than the screen. The theme wraps them when a page is shown.
document$.subscribe(() => {
  for (const wide of document.querySelectorAll(".md-typeset__scrollwrap")) wide.tabIndex = 0
})
