// What tests/scenarios/accessibility.py asks of a page. Each function returns a list of complaints.

function structure() {
    const found = [];
    const visible = (element) => element.checkVisibility({visibilityProperty: true});
    if (!document.documentElement.lang) found.push('the page has no language');
    const title = document.title.trim();
    if (!title) found.push('the page has no title');
    for (const [what, selector] of [['main', 'main'], ['h1', 'h1'], ['header', 'body > header']]) {
        const number = [...document.querySelectorAll(selector)].filter(visible).length;
        if (number !== 1) found.push(`${number} ${what} instead of one`);
    }
    let level = 0;
    for (const heading of document.querySelectorAll('h1, h2, h3, h4, h5, h6')) {
        if (!visible(heading)) continue;
        const next = Number(heading.tagName[1]);
        if (next > level + 1) found.push(`h${next} after h${level}: ${heading.textContent.trim()}`);
        level = next;
    }
    const ids = [...document.querySelectorAll('[id]')].map((element) => element.id);
    for (const id of new Set(ids.filter((id, place) => ids.indexOf(id) !== place)))
        found.push(`two elements with the id ${id}`);
    for (const name of ['aria-labelledby', 'aria-describedby', 'aria-controls'])
        for (const element of document.querySelectorAll(`[${name}]`))
            for (const id of element.getAttribute(name).split(/\s+/))
                if (!document.getElementById(id)) found.push(`${name} names ${id}, which is not there`);
    for (const table of document.querySelectorAll('table'))
        if (visible(table) && !table.querySelector('th')) found.push('a table without headings');
    for (const element of document.querySelectorAll('[tabindex]'))
        if (element.tabIndex > 0) found.push(`tabindex ${element.tabIndex}`);
    for (const element of document.querySelectorAll('[style]'))
        found.push(`style in the markup: ${element.outerHTML.slice(0, 80)}`);
    for (const control of document.querySelectorAll('button, input, select, summary')) {
        const {width, height} = control.getBoundingClientRect();
        const small = Math.min(width, height) < (control.matches('[type=checkbox], [type=radio]') ? 12 : 20);
        if (visible(control) && width > 1 && small)
            found.push(`${Math.round(width)} x ${Math.round(height)} is small: ${control.outerHTML.slice(0, 80)}`);
    }
    return found;
}

// Colours come in many notations; a canvas knows them all.
function contrast() {
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = 1;
    const brush = canvas.getContext('2d', {willReadFrequently: true});
    const known = new Map();
    const colour = (text) => {
        if (!known.has(text)) {
            brush.clearRect(0, 0, 1, 1);
            brush.fillStyle = text;
            brush.fillRect(0, 0, 1, 1);
            const [red, green, blue, alpha] = brush.getImageData(0, 0, 1, 1).data;
            known.set(text, [red, green, blue, alpha / 255]);
        }
        return known.get(text);
    };
    const over = (top, below) => {
        const alpha = top[3];
        return [0, 1, 2].map((n) => top[n] * alpha + below[n] * (1 - alpha)).concat(1);
    };
    const light = ([red, green, blue]) => {
        const part = (value) => {
            const share = value / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        };
        return 0.2126 * part(red) + 0.7152 * part(green) + 0.0722 * part(blue);
    };
    const ratio = (one, other) => {
        const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    };
    const dark = getComputedStyle(document.documentElement).colorScheme === 'dark';
    const paper = dark ? [18, 18, 18, 1] : [255, 255, 255, 1];
    const behind = (element) => {
        const layers = [];
        for (let at = element; at; at = at.parentElement) {
            const layer = colour(getComputedStyle(at).backgroundColor);
            layers.push(layer);
            if (layer[3] === 1) break;
        }
        return layers.reverse().reduce((below, layer) => over(layer, below), paper);
    };
    const drawnUnder = (element) => {
        element.scrollIntoView({block: 'center', inline: 'center'});
        const box = element.getBoundingClientRect();
        const at = document.elementsFromPoint(box.x + box.width / 2, box.y + box.height / 2);
        for (const under of at.slice(at.indexOf(element) + 1)) {
            if (under.ownerSVGElement && !under.matches('text, tspan, g, a, svg')) {
                const style = getComputedStyle(under);
                if (style.fill === 'none') continue;
                const fill = colour(style.fill);
                const alpha = fill[3] * style.fillOpacity * style.opacity;
                if (alpha > 0.02) return over([...fill.slice(0, 3), alpha], behind(under.ownerSVGElement));
            }
        }
        return behind(element.ownerSVGElement);
    };
    const found = new Map();
    const judge = (element, text, paint, below) => {
        const style = getComputedStyle(element);
        let alpha = paint[3];
        for (let at = element; at; at = at.parentElement) alpha *= getComputedStyle(at).opacity;
        const size = parseFloat(style.fontSize);
        const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
        const is = ratio(over([...paint.slice(0, 3), alpha], below), below);
        if (is < (large ? 3 : 4.5) - 0.005) {
            const name = element.getAttribute('class') ?? '';
            found.set(`${element.tagName}.${name}`, `${is.toFixed(2)} : 1, <${element.tagName.toLowerCase()} class="${name}"> ${text.slice(0, 40)}`);
        }
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        const element = node.parentElement;
        const text = node.nodeValue.trim();
        if (!text || element.matches('script, style, title, desc, option')) continue;
        if (!element.checkVisibility({visibilityProperty: true})) continue;
        if (element.closest(':disabled, [aria-disabled=true], .visually-hidden, .skip')) continue;
        const style = getComputedStyle(element);
        if (element.ownerSVGElement) judge(element, text, colour(style.fill), drawnUnder(element));
        else judge(element, text, colour(style.color), behind(element));
    }
    for (const input of document.querySelectorAll('[placeholder]'))
        if (input.checkVisibility() && !input.value)
            judge(input, input.placeholder, colour(getComputedStyle(input, '::placeholder').color), behind(input));
    return [...found.values()];
}

function overflow() {
    const wide = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= wide) return [];
    const out = [...document.querySelectorAll('main *, header *')]
        .filter((element) => element.getBoundingClientRect().right > wide + 1)
        .slice(0, 3).map((element) => element.outerHTML.slice(0, 100));
    return [`${document.documentElement.scrollWidth} px wide on ${wide}: ${out.join(' | ')}`];
}
