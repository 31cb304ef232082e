// The theme wraps tables and adds buttons when a page is shown; each of them is looked at when it comes.
function complete() {
  // What scrolls can be reached by the keyboard (WCAG 2.1.1).
  document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset pre > code").forEach(function (one) {
    one.tabIndex = 0;
  });
  // Landmarks of one kind have names of their own.
  document.querySelectorAll(".md-code__nav").forEach(function (one, index) {
    one.setAttribute("aria-label", "Code block " + (index + 1));
  });
}
// The search is a dialogue with a name. The two boxes behind the header's icons are there for style sheets alone: who
// cannot see the icons has the field and the navigation themselves.
document.querySelectorAll(".md-search").forEach(function (one) {
  one.setAttribute("aria-label", "Search");
});
document.querySelectorAll("#__drawer, #__search").forEach(function (one) {
  one.tabIndex = -1;
  one.setAttribute("aria-hidden", "true");
});
new MutationObserver(complete).observe(document.body, { childList: true, subtree: true });
complete();
