"use strict";
// Shows one response, or an episode turn by turn; used by both pages. Text only ever enters a page
// as text nodes, so nothing a model wrote can become markup.
const cards = (() => {
  function el(name, attributes = {}, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }
  function said(turn) {
    return el("div", { class: `turn ${turn.role}` }, el("span", { class: "role" }, turn.role),
      el("span", { class: "soft" }, turn.note ? ` ${turn.note}` : ""), el("pre", {}, turn.text || "(empty)"));
  }
  function sample(item, ...more) {
    const body = item.turns.length ? item.turns.map(said) : [el("pre", {}, item.response || "(empty)")];
    return el("div", { class: item.right ? "sample right" : "sample" },
      el("b", {}, item.right ? "right" : "wrong"), ...(item.turns.length ? [] : [el("span", { class: "soft" }, ` ${item.notes}`)]), ...more,
      el("pre", { class: "question" }, item.question), ...body,
      ...(item.turns.length ? [el("div", { class: "outcome" }, item.notes)] : []),
      el("span", { class: "soft" }, `gold: ${item.gold}`));
  }
  return { el, sample };
})();
