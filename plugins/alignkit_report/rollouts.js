// Lists the responses in the page: filtered, sorted, or all those to one question over the steps.
(() => {
  const { el, sample } = cards;
  const data = JSON.parse(document.getElementById("data").textContent);
  const MORE = 30; // responses shown at once
  const get = (id) => document.getElementById(id);
  const counts = new Map();
  for (const row of data.rows) counts.set(row.key, (counts.get(row.key) || 0) + 1);
  let question = null;
  let shown = MORE;

  function between(value, name) {
    const [least, most] = [get(`${name}-min`).value, get(`${name}-max`).value];
    return (least === "" || value >= Number(least)) && (most === "" || value <= Number(most));
  }
  function taken(row) {
    if (question !== null && row.key !== question) return false;
    const kind = get("kind").value, text = get("text").value.toLowerCase();
    if (kind !== "" && row.source !== Number(kind)) return false;
    if (!between(row.step, "step") || !between(row.reward, "reward")) return false;
    if (!between(row.length, "length") || !between(row.count, "turns")) return false;
    if (!text) return true;
    return [row.question, row.response, ...row.turns.map((t) => t.text)].some((t) => t.toLowerCase().includes(text));
  }
  const ORDERS = {
    step: (a, b) => a.step - b.step,
    late: (a, b) => b.step - a.step,
    low: (a, b) => a.reward - b.reward,
    high: (a, b) => b.reward - a.reward,
    long: (a, b) => b.length - a.length,
    turns: (a, b) => b.count - a.count,
  };
  function card(row) {
    const where = el("div", { class: "soft" }, `step ${row.step}, ${data.sources[row.source]}, ${row.id}`);
    if (question !== null || counts.get(row.key) < 2) return sample(row, where);
    const button = el("button", { type: "button" }, `same question: ${counts.get(row.key)}`);
    button.onclick = () => { question = row.key; get("order").value = "step"; refresh(); };
    return sample(row, where, button);
  }
  function fill() {
    const found = data.rows.filter(taken).sort(ORDERS[get("order").value]);
    const mean = found.reduce((sum, row) => sum + row.reward, 0) / (found.length || 1);
    get("found").textContent = found.length ? `${found.length} responses, mean reward ${mean.toPrecision(3)}` : "no responses";
    get("samples").replaceChildren(...found.slice(0, shown).map(card));
    get("more").hidden = found.length <= shown;
    get("all").hidden = question === null;
  }
  function refresh() { shown = MORE; fill(); }

  data.sources.forEach((name, i) => get("kind").append(el("option", { value: i }, name)));
  for (const field of document.querySelectorAll(".filters input, .filters select")) field.oninput = refresh;
  get("more").onclick = () => { shown += MORE; fill(); };
  get("all").onclick = () => { question = null; refresh(); };
  fill();
})();
