(() => {
  const root = document.currentScript?.closest(".kits-viewer") ?? document.getElementById("VIEWER_ID");
  const data = VIEWER_DATA;
  const find = (what) => root.querySelector(what);
  const slider = find("input[type=range]"), shown = find("output");
  const draw = () => {
    const at = Number(slider.value);
    const set = find("select")?.value ?? Object.keys(data.frames)[0];
    for (const frame of root.querySelectorAll("img.frame"))
      frame.src = "data:image/jpeg;base64," + data.frames[set][at];
    for (const layer of root.querySelectorAll("img.layer")) {
      layer.hidden = !find(`input[name="${layer.dataset.name}"]`).checked;
      layer.src = "data:image/png;base64," + data.layers[layer.dataset.name][at];
    }
    shown.textContent = data.words[at];
    slider.setAttribute("aria-valuetext", data.words[at]);
  };
  root.addEventListener("input", draw);
  draw();
})();
