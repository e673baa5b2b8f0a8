// Two texts compared word by word, as <del> and <ins>.
const words = (text) => text.match(/\p{L}+|\p{N}+|\s+|[^\p{L}\p{N}\s]/gu) ?? [];
const MOST = 1500; // words: the table has their square

function longest(a, b) {
  const table = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      table[i][j] = a[i] === b[j] ? table[i + 1][j + 1] + 1 : Math.max(table[i + 1][j], table[i][j + 1]);
    }
  }
  return table;
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

export function drawDifference(before, after) {
  const [a, b] = [words(before), words(after)];
  if (a.length > MOST || b.length > MOST) return [element("del", before), element("ins", after)];
  const table = longest(a, b);
  const drawn = [];
  const add = (name, word) => {
    const last = drawn.at(-1);
    if (last?.localName === name) last.textContent += word;
    else drawn.push(element(name, word));
  };
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      add("span", a[i++]);
      j++;
    } else if (j >= b.length || (i < a.length && table[i + 1][j] >= table[i][j + 1])) add("del", a[i++]);
    else add("ins", b[j++]);
  }
  return drawn;
}
