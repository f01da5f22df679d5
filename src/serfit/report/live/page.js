"use strict";

// Asks for the board every few seconds and shows it. Texts go in as text; charts are SVG made by the server itself.

const PAUSE = 3000;
let shown = "";

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}

function showTable(board) {
  const left = new Set(["run", "state", "expected"]);
  const kinds = board.columns.map((name) => (left.has(name) ? "" : "n"));
  const head = element("tr");
  board.columns.forEach((name, place) => head.append(element("th", name, kinds[place])));
  document.getElementById("head").replaceChildren(head);
  const rows = board.rows.map((row) => {
    const line = element("tr", undefined, row.state);
    row.cells.forEach((cell, place) => line.append(element("td", cell, kinds[place])));
    return line;
  });
  document.getElementById("rows").replaceChildren(...rows);
  const more = board.left_out ? `and ${board.left_out} older finished runs` : "";
  document.getElementById("more").textContent = [more, ...board.troubles].filter(Boolean).join("; ");
}

function showFindings(board) {
  const found = board.said.map((one) => {
    const box = element("article", undefined, "finding");
    const title = element("h3");
    title.append(element("span", one.kind, "kind"), ` ${one.about}`);
    box.append(title, element("p", sentence(one.evidence)), element("p", sentence(one.advice), "advice"));
    if (one.command) box.append(element("pre", one.command));
    return box;
  });
  const none = element("p", board.rows.length ? "Nothing to complain about." : "No runs there yet.", "soft");
  document.getElementById("said").replaceChildren(...(found.length ? found : [none]));
}

function showCharts(board) {
  const sections = board.experiments.filter((one) => one.charts.length).map((one) => {
    const section = element("section");
    const charts = element("div", undefined, "charts");
    for (const chart of one.charts) {
      const figure = element("figure");
      figure.innerHTML = chart;
      charts.append(figure);
    }
    section.append(element("h2", one.label), charts);
    return section;
  });
  document.getElementById("experiments").replaceChildren(...sections);
}

function show(board) {
  showTable(board);
  showFindings(board);
  showCharts(board);
}

async function refresh() {
  const now = document.getElementById("now");
  try {
    const answer = await fetch("/board.json", { cache: "no-store" });
    const board = await answer.json();
    if (board.error) throw new Error(board.error);
    const { at, ...rest } = board;
    const text = JSON.stringify(rest);
    if (text !== shown) {
      show(board);
      shown = text;
    }
    now.textContent = `${board.alive ? "In progress" : "No run is in progress"}; read from the records at ${at}.`;
    now.className = "soft";
  } catch (error) {
    now.textContent = `No answer (${error.message}); what stands here is old.`;
    now.className = "warnings";
  }
  setTimeout(refresh, PAUSE);
}

refresh();
