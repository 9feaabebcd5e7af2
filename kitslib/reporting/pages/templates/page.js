(() => {
  const contents = document.querySelector(".toc details");
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
