"""The style of the page: light and dark, from a phone to a wide screen, and on paper."""

STYLE = """
:root{--bg:#fbfaf8;--ink:#1d1c1a;--soft:#6a665f;--line:#e2ded6;--card:#fff;--accent:#a8420f;
--c0:#3b6fb5;--c1:#c0561f;--c2:#2b8a63;--c3:#9a4d9e;--c4:#a78a14;--c5:#2f8ea3;--c6:#b8456b;
--c7:#6b6f76;--lane:#f0ede7}
@media(prefers-color-scheme:dark){:root{--bg:#161513;--ink:#ece8e1;--soft:#a29c92;--line:#34312c;
--card:#1f1d1a;--accent:#f0935c;--c0:#7aa7e6;--c1:#ee935d;--c2:#5fc39a;--c3:#cf8fd3;--c4:#d9bf52;
--c5:#68c3d8;--c6:#ec86a8;--c7:#a7abb2;--lane:#24221e}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
@media(prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{margin:0;background:var(--bg);color:var(--ink);
font:16px/1.5 ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:64rem;margin:0 auto;padding:2rem 1.25rem 5rem}
h1{font-size:1.9rem;line-height:1.15;margin:.1em 0 .3em;letter-spacing:-.015em;
overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2.2em 0 .6em}
h3{font-size:1rem;margin:0 0 .5em;display:flex;align-items:center;gap:.45em;flex-wrap:wrap}
h3 small{margin-left:auto;font-variant-numeric:tabular-nums}
p{margin:.3em 0}small,.keys,header p{color:var(--soft)}header b{color:var(--ink)}
.brand{font-weight:650;letter-spacing:.04em;color:var(--accent)!important;margin:0}
.note{border-left:3px solid var(--accent);padding-left:.7em;color:var(--ink)!important}
dl{margin:0}dt{color:var(--soft);font-size:.82rem;line-height:1.3}
dd{margin:0;font-variant-numeric:tabular-nums}
.summary{display:grid;grid-template-columns:repeat(auto-fill,minmax(12rem,1fr));
background:var(--card);border:1px solid var(--line);border-radius:10px;overflow:hidden;
margin-top:1.4em}
.summary div{padding:.7em .9em;display:flex;flex-direction:column;justify-content:space-between;
box-shadow:1px 0 var(--line),0 1px var(--line),1px 1px var(--line)}
.summary dd{font-size:1.25rem;font-weight:600;letter-spacing:-.01em}
.legend{list-style:none;padding:0;margin:0 0 .6em;display:flex;flex-wrap:wrap;gap:.25em 1.2em}
.dot{display:inline-block;width:.8em;height:.8em;border-radius:3px;flex:none;margin-right:.35em}
h3 .dot{margin:0}
.dot.both{background:repeating-linear-gradient(45deg,var(--ink) 0 2px,transparent 2px 4px)}
.dot.outlined{border:1.5px solid var(--ink)}
.scroll{overflow-x:auto;padding-bottom:.3em}.row{min-width:42rem;position:relative;margin-bottom:.6em}
.lanes{width:100%;display:block}.lane{fill:var(--lane)}
.tick{stroke:var(--line);stroke-width:1;vector-effect:non-scaling-stroke}
.turn{opacity:.42}.turn.new{opacity:1;stroke:var(--ink);stroke-width:1.5;
vector-effect:non-scaling-stroke}.lanes a:hover .turn{opacity:.8}
.overlap{fill:var(--ink);opacity:.16;pointer-events:none}
.axis{position:absolute;bottom:0;left:0;right:0;height:18px;font-size:.72rem;color:var(--soft)}
.axis span{position:absolute;padding-left:4px;line-height:18px;font-variant-numeric:tabular-nums}
.c0{background:var(--c0);fill:var(--c0)}.c1{background:var(--c1);fill:var(--c1)}
.c2{background:var(--c2);fill:var(--c2)}.c3{background:var(--c3);fill:var(--c3)}
.c4{background:var(--c4);fill:var(--c4)}.c5{background:var(--c5);fill:var(--c5)}
.c6{background:var(--c6);fill:var(--c6)}.c7{background:var(--c7);fill:var(--c7)}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;
padding:1em 1.1em;margin:0 0 .9em;scroll-margin:1rem}
.card:focus,.card.here{outline:2px solid var(--accent);outline-offset:2px}
blockquote{margin:0 0 .7em;color:var(--soft)}
.versions{display:grid;grid-template-columns:repeat(3,1fr);gap:.8em;margin-bottom:.8em}
.version button{font:inherit;font-size:.9rem;width:100%;text-align:left;cursor:pointer;
color:var(--ink);background:none;border:1px solid var(--line);border-radius:7px;
padding:.5em .7em;min-height:44px;display:none}
.js .version button{display:block}.js audio{display:none}
.version button::before{content:"\\25B6";font-size:.75em;margin-right:.6em;color:var(--soft)}
.version.on button{border-color:var(--accent);color:var(--accent)}
.version.on button::before{content:"\\275A\\275A";color:var(--accent);letter-spacing:-.15em}
button:focus-visible,a:focus-visible,summary:focus-visible{outline:2px solid var(--accent);
outline-offset:2px}
.wavebox{position:relative;height:44px;margin-top:.4em;cursor:pointer}
.wave{width:100%;height:100%;display:block}.wave polygon{fill:var(--soft)}
.wave.new polygon{fill:var(--accent)}.wave.difference polygon{fill:var(--soft);opacity:.55}
.wavebox i{position:absolute;top:0;bottom:0;left:0;width:2px;background:var(--ink);opacity:0}
.version.on i{opacity:1}
audio{width:100%;margin-top:.4em}
.numbers{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:.5em 1em}
.numbers dd{font-weight:550}
kbd{font:inherit;font-size:.8em;border:1px solid var(--line);border-bottom-width:2px;
border-radius:4px;padding:0 .4em;color:var(--ink)}
.keys,.scale{font-size:.85rem;color:var(--soft)}.scale{margin-bottom:1em}
details{margin-top:2.2em}summary{cursor:pointer}
table{border-collapse:collapse;margin-top:.6em;font-size:.85rem;width:100%}
th,td{text-align:left;vertical-align:top;padding:.3em .8em .3em 0;border-top:1px solid var(--line);
overflow-wrap:anywhere}th{font-weight:500;color:var(--soft);width:12rem}
@media(max-width:40rem){main{padding:1.2rem .9rem 4rem}h1{font-size:1.5rem}.keys{display:none}
.versions{grid-template-columns:1fr;gap:.5em}.version{display:grid;grid-template-columns:8.2rem 1fr;
gap:.6em;align-items:center}.wavebox{margin:0}.version audio{grid-column:1/-1}
h3 small{margin-left:0;width:100%}.summary{grid-template-columns:1fr 1fr}th{width:7rem}}
@media print{.versions button,.keys,audio{display:none!important}.card{break-inside:avoid}}
""".strip()
