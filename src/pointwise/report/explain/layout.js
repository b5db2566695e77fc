// How large the grids are drawn: the largest cells with which everything fits into the window.

const CARD_GAP = 16, BAND_GAP = 28, TITLE = 30, CAPTION = 22, MIN_CARD = 84, PARTIAL = 58, SMALL_KERNEL = 84;
const TITLE_WIDTH = {reading: 268, output: 184};

/** Rows and columns of a band's planes, with the padding that its layer puts around them. */
function bandSize({layer, source}) {
  const [rows, columns] = source ? [source.rows, source.columns] : [layer.x[0].length, layer.x[0][0].length];
  if (!layer) return {rows, columns, top: 0, left: 0};
  const [top, bottom] = layer.vertical, [left, right] = layer.horizontal;
  return {rows: rows + top + bottom, columns: columns + left + right, top, left};
}

/** The size of a band's cards (a channel and its kernel, beside or below it), in pixels. */
function cardSize(band, {cell, largestTap, beside}) {
  const {rows, columns} = bandSize(band);
  const plane = {width: columns * cell + 4, height: rows * cell + 4};
  const captioned = (tap, width, height) => ({tap, width: Math.max(MIN_CARD, width), height: CAPTION + height + CARD_GAP});
  if (!band.layer) return captioned(0, plane.width, plane.height);
  const {kernel} = band.layer;
  const room = beside ? Math.max(plane.height - 26, SMALL_KERNEL) : plane.width - 4;
  const tap = Math.max(4, Math.min(kernel === 1 ? 38 : largestTap, Math.floor(room / kernel)));
  const side = kernel * tap + 4;
  return beside
    ? captioned(tap, plane.width + 8 + Math.max(side, PARTIAL), Math.max(plane.height, side + 24))
    : captioned(tap, plane.width, plane.height + 6 + side + 22);
}

/** A band with so many cards in a row. */
function bandWith(band, card, across) {
  const width = across * (card.width + CARD_GAP) - CARD_GAP;
  return {
    width: Math.max(width, band.layer ? TITLE_WIDTH.reading : TITLE_WIDTH.output),
    height: TITLE + Math.ceil(band.cards.length / across) * card.height,
  };
}

/** Bands beside each other, as low as the width allows; null where they do not fit. */
function lineOf(bands, cards, width) {
  const options = bands.map((band, n) =>
    band.cards.map((_, i) => bandWith(band, cards[n], i + 1)));
  const heights = [...new Set(options.flat().map(({height}) => height))].sort((a, b) => a - b);
  for (const height of heights) {
    const chosen = options.map(option => option.find(one => one.height <= height));
    if (chosen.includes(undefined)) continue;
    const used = chosen.reduce((sum, one) => sum + one.width, (bands.length - 1) * BAND_GAP);
    if (used <= width) return {height, widths: chosen.map(one => one.width)};
  }
  return null;
}

/** All ways to break a list into lines. */
function linesOf(list) {
  if (list.length <= 1) return [[list]];
  return linesOf(list.slice(1)).flatMap(([first, ...rest]) =>
    [[[list[0], ...first], ...rest], [[list[0]], first, ...rest]]);
}

/** The lowest arrangement of bands with cells of one size; null where the width is too small. */
function arrange(bands, how, width) {
  const cards = new Map(bands.map(band => [band, cardSize(band, how)]));
  let best = null;
  for (const lines of linesOf(bands)) {
    const found = lines.map(line => lineOf(line, line.map(band => cards.get(band)), width));
    if (found.includes(null)) continue;
    const height = found.reduce((sum, line) => sum + line.height, 0);
    if (!best || height < best.height)
      best = {height, widths: found.flatMap(line => line.widths), cards: [...cards.values()], ...how};
  }
  return best;
}

/** The arrangement with the largest cells that fits; with the smallest, as high as it comes. */
function fitBands(bands, width, height) {
  for (let cell = 34; cell > 4; cell--)
    for (const [largestTap, beside] of [[34, true], [34, false], [28, true], [28, false]]) {
      const found = arrange(bands, {cell, largestTap, beside}, width);
      if (found && (found.height <= height || cell === 5)) return found;
    }
  return {...arrange(bands, {cell: 5, largestTap: 28, beside: false}, Infinity)};
}
