// What stands on the page depends on what it is about.

/** Everything about one run; gives what has to be done once the nodes are on the page. */
async function runParts(data) {
  const { report } = data;
  const nodes = [summaryPart(report), helpPart(report, data.sensitivity, data.note)];
  const after = [];
  let view = null;
  if (data.timeline) {
    const timeline = await unpack(data.timeline);
    const span = new TimeWindow(timeline.end_s);
    const [drawn, layout, made] = timelinePart(timeline, span);
    const [curve, arrange] = memoryPart(timeline, report, span);
    view = made;
    nodes.push(drawn, curve);
    after.push(layout, arrange);
  }
  nodes.push(breakdownPart(report), stagesPart(report), provenancePart(data));
  return { nodes: nodes.filter((node) => node !== null), layout: () => after.forEach((action) => action()), view };
}

let arrangeAgain = () => {};

/** Puts parts into a place of the page, in the place of what was there. */
function present(place, parts) {
  themeListeners.clear();
  place.replaceChildren(...parts.nodes);
  arrangeAgain = parts.layout;
  parts.layout();
}

async function start() {
  startTheme();
  const data = JSON.parse(document.getElementById("data").textContent);
  const main = document.getElementById("main");
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    // Phones change the height while scrolling: only a new width moves anything.
    if (window.innerWidth !== width) { width = window.innerWidth; arrangeAgain(); }
  });
  if (data.kind === "run") present(main, await runParts(data));
  else if (data.kind === "live") await startLive(main, data);
  else present(main, pointsParts(data));
  document.documentElement.dataset.ready = performance.now().toFixed(0);
}

start();
