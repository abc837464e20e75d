// Draws the page's charts. Without it, or without Chart.js, the page keeps its tables: the figures stay hidden.
'use strict';
(() => {
  const data = JSON.parse(document.getElementById('charts').textContent);
  const root = document.documentElement;
  const drawn = [];

  const colour = name => getComputedStyle(root).getPropertyValue('--' + name).trim();
  const blockColour = slot => colour(slot < 0 ? 'quiet' : 's' + slot);
  const faded = (hex, alpha) => hex + Math.round(alpha * 255).toString(16).padStart(2, '0');
  const longest = Number(root.dataset.longestLabel);
  const shortened = name => name.length > longest ? name.slice(0, 8) + '…' + name.slice(9 - longest) : name;
  const minus = text => text.replace('-', '−');
  const loss = value => minus(value.toFixed(3));
  const signed = value => (value > 0 ? '+' : '') + loss(value);
  const tick = value => minus(String(+value.toPrecision(6)));

  // Each bar's value behind its end.
  const barLabels = text => ({
    id: 'barLabels',
    afterDatasetsDraw(chart) {
      const context = chart.ctx;
      context.save();
      context.font = '11px ' + Chart.defaults.font.family;
      context.fillStyle = colour('ink');
      context.textBaseline = 'middle';
      chart.data.datasets.forEach((set, s) => chart.getDatasetMeta(s).data.forEach((bar, i) => {
        if (set.data[i] !== null) context.fillText(text(set.data[i], i), bar.x + 5, bar.y + 0.5);
      }));
      context.restore();
    },
  });

  const axis = (title, format, more) => ({
    title: {display: title !== '', text: title, color: colour('quiet')},
    grid: {color: colour('rule'), borderColor: colour('rule'), drawTicks: false},
    ticks: {color: colour('quiet'), padding: 6, maxRotation: 0, callback: format || tick},
    ...more,
  });
  const names = () => ({
    grid: {display: false, borderColor: colour('rule')},
    ticks: {color: colour('ink'), padding: 6, autoSkip: false, callback(value) { return shortened(this.getLabelForValue(value)); }},
  });
  const rounds = () => ({
    title: {display: true, text: 'round', color: colour('quiet')},
    grid: {display: false, borderColor: colour('rule')},
    ticks: {color: colour('quiet'), maxRotation: 0},
  });
  const options = (label, more) => ({
    maintainAspectRatio: false,
    plugins: {legend: {display: false}, tooltip: {callbacks: {label}}},
    ...more,
  });
  const line = (slot, values, more) => ({
    data: values, borderColor: blockColour(slot), backgroundColor: blockColour(slot), borderWidth: 2, pointRadius: 3.5,
    pointHitRadius: 12, tension: 0, clip: false, ...more,
  });

  // Each point's name beside it, on the side where there is room.
  const pointLabels = points => ({
    id: 'pointLabels',
    afterDatasetsDraw(chart) {
      const context = chart.ctx, middle = (chart.chartArea.left + chart.chartArea.right) / 2;
      context.save();
      context.font = '11px ' + Chart.defaults.font.family;
      context.fillStyle = colour('ink');
      context.textBaseline = 'middle';
      chart.getDatasetMeta(0).data.forEach((point, i) => {
        const left = point.x > middle;
        context.textAlign = left ? 'right' : 'left';
        context.fillText(shortened(points[i].label), point.x + (left ? -9 : 9), point.y);
      });
      context.restore();
    },
  });

  const charts = {
    // Perplexity or accuracy of each row against what it costs; the front as steps.
    tradeoff(d) {
      const x = {bytes: ['MB on disk', value => tick(value / 1e6)], decode: ['decoding, tokens/s'], train: ['training, tokens/s']}[d.axis];
      const all = d.points.map(point => point.y);
      const wide = d.quality === 'perplexity' && Math.max(...all) > 5 * Math.min(...all);
      const y = axis(wide ? 'perplexity, logarithmic' : d.quality, wide ? value => /^[125]0*$/.test(value) ? tick(value) : '' : null,
                     {type: wide ? 'logarithmic' : 'linear', grace: '5%'});
      const front = d.points.filter(point => point.front).sort((a, b) => a.x - b.x);
      return {
        rows: 22,
        type: 'scatter',
        data: {datasets: [
          {data: d.points, pointRadius: 5.5, pointHitRadius: 12, clip: false, pointBorderWidth: 2,
           pointBorderColor: d.points.map(point => blockColour(point.slot)),
           pointBackgroundColor: d.points.map(point => point.front ? blockColour(point.slot) : colour('paper'))},
          {type: 'line', data: front, borderColor: colour('quiet'), borderWidth: 1, borderDash: [4, 3], pointRadius: 0,
           pointHitRadius: 0, stepped: d.less ? 'before' : 'after'},
        ]},
        options: options(item => d.points[item.dataIndex].name + ': ' + tick(item.parsed.y) + (item.raw.front ? ', on the front' : ''),
                         {scales: {x: axis(x[0], x[1], {grace: '8%'}), y}}),
        plugins: [pointLabels(d.points)],
      };
    },
    quality(d) {
      const bars = (label, values, fill) => ({
        label, data: values, borderWidth: 1, borderColor: d.slots.map(blockColour), barPercentage: 0.86, categoryPercentage: 0.8,
        backgroundColor: d.slots.map(slot => fill === 0 ? colour('paper') : faded(blockColour(slot), fill)), minBarLength: 2,
      });
      return {
        rows: d.offices.length * 4.6 + 3,
        type: 'bar',
        data: {labels: d.offices, datasets: [bars('before', d.before, 0), bars('alone', d.alone, 0.45), bars('LEGO', d.lego, 1)]},
        options: options(item => item.dataset.label + ': ' + loss(item.raw), {
          indexAxis: 'y', layout: {padding: {right: 42}}, scales: {x: axis('loss, nats a token', null, {beginAtZero: true}), y: names()},
        }),
        plugins: [barLabels(loss)],
      };
    },
    differences(d) {
      const reach = Math.max(...d.low.map(Math.abs), ...d.high.map(Math.abs), 1e-6) * 1.12;
      const zero = axis('LEGO − alone, nats a token', value => value === 0 ? '0' : (value > 0 ? '+' : '') + tick(value),
                        {suggestedMin: -reach, suggestedMax: reach});
      zero.grid.color = context => colour(context.tick.value === 0 ? 'ink' : 'rule');
      return {
        rows: d.offices.length * 2.2 + 3.5,
        type: 'bar',
        data: {
          labels: d.offices,
          datasets: [
            {type: 'line', showLine: false, data: d.mean, pointRadius: 5, pointHitRadius: 12, clip: false,
             pointBackgroundColor: d.slots.map(blockColour), pointBorderColor: colour('paper')},
            {data: d.low.map((low, i) => [low, d.high[i]]), barThickness: 5, borderSkipped: false,
             backgroundColor: d.slots.map(slot => faded(blockColour(slot), 0.45))},
          ],
        },
        options: options(item => signed(d.mean[item.dataIndex]) + ', 95 % interval ' + signed(d.low[item.dataIndex]) + ' to ' +
                                 signed(d.high[item.dataIndex]), {indexAxis: 'y', scales: {x: zero, y: names()}}),
      };
    },
    rounds(d) {
      const dashes = [[], [6, 4], [2, 3], [10, 3, 2, 3]];
      const marks = ['circle', 'rect', 'triangle', 'rectRot'];
      const made = options(item => item.dataset.label + ': ' + loss(item.raw), {scales: {x: rounds(), y: axis('loss, nats a token')}});
      made.interaction = {mode: 'index', intersect: false};
      made.plugins.legend = {position: 'bottom', align: 'start',
                             labels: {color: colour('ink'), usePointStyle: true, boxWidth: 7, boxHeight: 7, padding: 16}};
      return {
        rows: 20 + d.lines.length * 0.6,
        type: 'line',
        data: {labels: d.labels,
               datasets: d.lines.map(one => line(one.slot, one.values, {label: shortened(one.name) + (one.block ? ', ' + one.block : ''), spanGaps: true,
                 borderDash: dashes[one.dash % dashes.length], pointStyle: marks[one.dash % marks.length]}))},
        options: made,
      };
    },
    llm_loss(d) {
      return {type: 'line', rows: 14, data: {labels: d.labels, datasets: [line(0, d.values)]},
              options: options(item => loss(item.raw), {scales: {x: rounds(), y: axis('')}})};
    },
    llm_perplexity(d) {
      return {type: 'line', rows: 14, data: {labels: d.labels, datasets: [line(0, d.values)]},
              options: options(item => item.raw.toFixed(2), {scales: {x: rounds(), y: axis('')}})};
    },
    sizes(d) {
      return {
        rows: d.labels.length * 2 + 2,
        type: 'bar',
        data: {labels: d.labels, datasets: [{data: d.bytes, backgroundColor: d.slots.map(blockColour), barPercentage: 0.8}]},
        options: options(item => d.texts[item.dataIndex], {
          indexAxis: 'y', layout: {padding: {right: 62}},
          scales: {x: axis('MB', value => tick(value / 1e6), {beginAtZero: true}), y: names()},
        }),
        plugins: [barLabels((value, i) => d.texts[i])],
      };
    },
  };

  function draw() {
    while (drawn.length > 0) drawn.pop().destroy();
    for (const figure of document.querySelectorAll('figure[data-chart]')) {
      const name = figure.dataset.chart;
      if (!(name in data)) continue;
      const {rows, ...made} = charts[data[name].kind ?? name](data[name]);
      figure.hidden = false;
      figure.querySelector('.plot').style.height = rows + 'rem';
      drawn.push(new Chart(figure.querySelector('canvas'), made));
    }
  }

  if (typeof Chart === 'undefined') return;
  Chart.defaults.animation = false;
  Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
  Chart.defaults.font.size = 12;
  draw();

  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
  const closed = [];  // what printing opened
  addEventListener('beforeprint', () => {
    root.classList.add('printing');
    for (const details of document.querySelectorAll('details:not([open])')) {
      details.open = true;
      closed.push(details);
    }
    draw();
  });
  addEventListener('afterprint', () => {
    root.classList.remove('printing');
    while (closed.length > 0) closed.pop().open = false;
    draw();
  });
})();
