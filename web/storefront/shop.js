// The example shop's page. It asks its own server only; what it shows is put in as text, never as HTML.
const SLOTS = ["home.hero", "home.note", "home.shipping", "product.offer", "cart.top"];
const CARTS = {
  fill: [{ id: "1", sku: "RUN-1", categories: ["shoes/running"], price: 6000, quantity: 2 }],
  trade: [{ id: "1", sku: "NAPKIN-1", categories: ["consumables"], price: 400, quantity: 10 }],
  empty: [],
};
// An event takes milliseconds; whoever is slower than these is seen at the next look.
const LOOKS_MS = [80, 400, 1500];
const SHIPPING = 490;
const find = id => document.getElementById(id);
const money = cents => (cents / 100).toFixed(2);

function element(name, text = "", set = {}, ...children) {
  const made = Object.assign(document.createElement(name), { textContent: text, ...set });
  made.append(...children);
  return made;
}

async function ask(path, body) {
  const how = body && { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  const answer = await fetch(path, { cache: "no-store", ...how });
  if (!answer.ok) throw new Error(`${path.split("?")[0]} answers ${answer.status}`);
  return { body: await answer.json(), headers: answer.headers };
}

// What happened, and the cart, which outlives a reload: the shopper's profile is told of it again on every load.

const happened = (type, data) => ask("/v1/events", { events: [{ id: crypto.randomUUID(), type, data }] });
const euros = amount => ({ amount, currency: "EUR" });

// Where the browser keeps nothing for us, it lives as long as the page.
let cartHere = null;

function keptCart() {
  try { return localStorage.getItem("cart"); } catch { return cartHere; }
}

function keepCart(text) {
  cartHere = text;
  try { localStorage.setItem("cart", text); } catch { /* as above */ }
}

// Only these are ever kept; whatever else stands there is an empty one.
function cartLines() {
  const kept = keptCart();
  return Object.values(CARTS).find(lines => JSON.stringify(lines) === kept) ?? [];
}

function tellCart() {
  const lines = cartLines();
  const items = lines.map(l => ({ sku: l.sku, quantity: l.quantity, price: euros(l.price) }));
  return happened("cart_update", { items, subtotal: euros(lines.reduce((sum, l) => sum + l.price * l.quantity, 0)) });
}

function setCart(name) {
  keepCart(JSON.stringify(CARTS[name]));
  return tellCart();
}

// What is shown.

export function safe(link) {
  try {
    const url = new URL(link, location.origin);
    const own = link.startsWith("/") && url.origin === location.origin;
    return own || (/^https:\/\/[a-z0-9]/i.test(link) && url.protocol === "https:") ? url.href : null;
  } catch { return null; }
}

const anchor = (text, link) => safe(link) ? element("a", text, { href: safe(link) }) : element("span", text);
const picture = (src, alt) => safe(src) ? [element("img", "", { src: safe(src), alt })] : [];
const drawn = {
  heading: p => [element("h2", p.text)],
  text: p => [element("p", p.text)],
  image: p => picture(p.src, p.alt),
  banner: p => [element("h2", "", {}, p.href ? anchor(p.title, p.href) : p.title), element("p", p.text),
                ...(p.image ? picture(p.image, "") : [])],
  cta: p => [anchor(p.label, p.href)],
  coupon: p => [element("p", p.text), element("code", p.code)],
};

// What cannot be said without the shopper's segments, or the blocks.
const standsIn = body => body.degraded?.some(part => part !== "promotions");

function badge({ body, headers }) {
  if (body.degraded)
    return ["miss", standsIn(body) ? "stand-in" : "in part", `Could not be asked just now: ${body.degraded.join(", ")}`];
  if ((headers.get("cache-control") ?? "").includes("no-store"))
    return ["miss", "never shared", "It depends on this request, for instance on where it comes from"];
  const status = headers.get("cache-status");
  if (!status) return ["miss", "no edge", "There is no Varnish in front of the gateway here"];
  return status.includes("hit")
    ? ["hit", "edge hit", "Answered from a copy that everybody with the same segments shares"]
    : ["miss", "edge miss", "Made by the gateway just now; the next one with the same segments gets a copy"];
}

const whyFallback = body => standsIn(body)
  ? "It is a stand-in: whether there is a block for this shopper could not be asked just now."
  : "No block is for this shopper, so it is the slot's default.";

function slotSection(slot, found, why) {
  const { fallback, blocks } = found.body.slots[slot];
  const [kind, text, title] = badge(found);
  const reasons = (why?.slots[slot] ?? []).map(r => element("li", `${r.block}: ${r.refused ?? "shown"}`));
  return element("section", "", { className: fallback ? "" : "mine" },
    ...blocks.flatMap(b => b.content.blocks).flatMap(b => drawn[b.type]?.(b.props) ?? []),
    element("div", "", { className: "badges" },
      element("span", text, { className: `badge ${kind}`, title }), element("span", slot)),
    element("details", "", {}, element("summary", "Why this?"),
      element("ul", "", {}, ...reasons),
      element("p", fallback ? whyFallback(found.body) : "")));
}

// A condition as words in the order one would say them, a leaf a line.
const SAID = ["type", "measure", "field", "count", "op", "value", "values", "where", "window"];
function words(value) {
  if (value === null || value === "") return "none";
  if (typeof value !== "object") return String(value);
  if (Array.isArray(value)) return value.map(words).join(", ");
  return Object.entries(value).sort(([a], [b]) => SAID.indexOf(a) - SAID.indexOf(b)).map(([, v]) => words(v)).join(" ");
}
function leaves(node) {
  if (node.children) return node.children.flatMap(leaves);
  const name = Object.keys(node.condition).find(key => !SAID.includes(key)) ?? "";
  const until = node.flips_at ? `, until ${new Date(node.flips_at).toLocaleString()}` : "";
  const here = "seen" in node ? ` (here: ${words(node.seen)}${until})` : "";
  return [element("li", `${node.result ? "✓" : "✗"} ${name} ${words(node.condition)}${here}`)];
}

function segmentsSection(why) {
  const parts = Object.values(why.why).filter(found => found.why).map(found => element("li", "", {},
    element("b", `${found.segment}: ${why.segments.includes(found.segment) ? "in" : "out"}`),
    element("ul", "", {}, ...leaves(found.why))));
  return element("details", "", {}, element("summary", `Segments: ${why.segments.join(", ") || "none"}`),
    element("ul", "", {}, ...parts));
}

function cartRow(name, cents, className = "") {
  return element("tr", "", { className }, element("th", name, { scope: "row" }), element("td", money(cents)));
}

function showCart(lines, cart) {
  if (cart.degraded?.includes("promotions")) return [element("p", "Prices without promotions: they cannot be asked now.")];
  const rows = [
    ...lines.map(l => cartRow(`${l.quantity} × ${l.sku}`, l.price * l.quantity)),
    ...(lines.length ? [cartRow("Shipping", SHIPPING)] : [element("tr", "", {}, element("th", "It is empty"))]),
    ...cart.applied.map(a => cartRow(a.label, -(a.amount + a.shipping))),
    cartRow("Total", cart.grand_total, "total"),
  ];
  const hints = cart.hints.map(h => element("p", `${money(h.missing)} more for: ${h.label}`));
  const trace = cart.trace.map(t => element("li", `${t.rule}: ${t.applied ? "applied" : t.reason}`));
  return [element("table", "", {}, element("tbody", "", {}, ...rows)), ...hints,
    element("details", "", {}, element("summary", "Why these offers?"), element("ul", "", {}, ...trace))];
}

// A panel that was open stays open when it is drawn again.
function redraw(place, ...children) {
  const open = [...place.querySelectorAll("details")].map(d => d.open);
  place.replaceChildren(...children);
  place.querySelectorAll("details").forEach((d, i) => { d.open = open[i] ?? false; });
}

async function show() {
  await ask("/v1/context");  // the edge keys by this cookie, so it has to be of now
  const lines = cartLines();
  const [cart, why, ...found] = await Promise.all([
    ask("/v1/cart", { lines, shipping: lines.length ? SHIPPING : 0 }), ask(`/shop/why?slots=${SLOTS}`),
    ...SLOTS.map(slot => ask(`/v1/decisions?slots=${slot}`))]);
  redraw(find("slots"), ...SLOTS.map((slot, i) => slotSection(slot, found[i], why.body)));
  redraw(find("cart"), ...showCart(lines, cart.body), segmentsSection(why.body));
}

// What a click does. One after the other, so that the last one is what is shown.

let turn = Promise.resolve(), last = 0;
function after(act) {
  const mine = ++last;
  turn = turn.then(async () => {
    try {
      await act();
      for (const wait of LOOKS_MS) {
        await new Promise(done => setTimeout(done, wait));
        if (mine !== last) break;
        await show();
      }
      find("trouble").hidden = true;
    } catch (error) {
      find("trouble").textContent = `The shop has trouble: ${error.message}`;
      find("trouble").hidden = false;
    }
  });
}

let views = 0;
const actions = {
  view: () => happened("product_view", { sku: `RUN-${++views}`, category: "shoes/running" }),
  fill: () => setCart("fill"),
  trade: () => setCart("trade"),
  empty: () => setCart("empty"),
  page: () => happened("page_view", { path: "/" }),
};

function session({ who, people, edge }) {
  find("who").replaceChildren(...Object.entries(people).map(([value, text]) =>
    element("option", text, { value, selected: value === who })));
  find("legend").textContent = edge
    ? "Green frames are for this shopper. Decisions come through Varnish: the badge says from a copy or not."
    : "Green frames are for this shopper. There is no Varnish here, so every decision is asked of the gateway.";
}

// Who one is, is the same in every tab: the others load anew when it is changed in one.
const tabs = new BroadcastChannel("shopper");
tabs.onmessage = () => location.reload();

document.addEventListener("click", ({ target }) => {
  if (target.dataset?.do) after(actions[target.dataset.do]);
});
find("who").addEventListener("change", ({ target }) => after(async () => {
  session((await ask("/shop/session", { who: target.value })).body);
  tabs.postMessage("changed");
  await tellCart();
}));
window.addEventListener("storage", () => after(async () => {}));
after(async () => {
  session((await ask("/shop/session")).body);
  await ask("/v1/context");
  await tellCart();
  await happened("page_view", { path: "/" });
});
