(() => {
  const contents = document.querySelector(".toc details");
  if (!contents) return;
  const wide = matchMedia("(min-width: 1210px)");
  const fold = () => { contents.open = wide.matches; };
  wide.addEventListener("change", fold);
  fold();
  contents.addEventListener("click", (event) => {
    if (event.target.closest("a") && !wide.matches) contents.open = false;
  });
  const links = new Map([...contents.querySelectorAll("a")].map((a) => [a.hash.slice(1), a]));
  const mark = () => {
    let current = null;
    for (const id of links.keys()) {
      const heading = document.getElementById(id);
      if (heading && heading.getBoundingClientRect().top < 120) current = id;
    }
    for (const [id, a] of links) a.toggleAttribute("aria-current", id === current);
  };
  addEventListener("scroll", mark, { passive: true });
  mark();
})();
// what is wider than its box fades at the edge that hides more; only such a box is a tab stop
(() => {
  const boxes = document.querySelectorAll(".scroll, pre, .formula, .in-line");
  const look = (box) => {
    const more = box.scrollWidth - box.clientWidth;
    box.classList.toggle("more-left", more > 1 && box.scrollLeft > 1);
    box.classList.toggle("more-right", more > 1 && box.scrollLeft < more - 1);
    box.classList.toggle("wider", more > 1);
    if (more > 1) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  };
  const sizes = new ResizeObserver((entries) => entries.forEach((entry) => look(entry.target.closest(".scroll, pre, .formula, .in-line"))));
  for (const box of boxes) {
    sizes.observe(box);
    if (box.firstElementChild) sizes.observe(box.firstElementChild);
    box.addEventListener("scroll", () => look(box), { passive: true });
    look(box);
  }
  // what a link leads to is not left folded away
  const open = () => {
    const row = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let at = row; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  };
  addEventListener("hashchange", open);
  open();
})();
