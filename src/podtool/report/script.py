"""The script of the page: one thing plays at a time, switching versions keeps the place."""

SCRIPT = """
(function(){
"use strict";
document.documentElement.classList.add("js");
var playing=null;
var cards=[].slice.call(document.querySelectorAll(".card"));
function audio(v){return v.querySelector("audio");}
function stop(){if(!playing)return 0;var a=audio(playing);var t=a.currentTime;a.pause();
playing.classList.remove("on");playing=null;return t;}
function play(v,at){var same=playing&&playing.parentNode===v.parentNode;
if(playing===v&&at===undefined){stop();return;}
var t=stop();var a=audio(v);playing=v;v.classList.add("on");mark(v.closest(".card"),false);
var to=at===undefined?(same?t:0):at;
function go(){if(playing!==v)return;
a.currentTime=a.duration&&to<a.duration-0.05?to:0;
var p=a.play();if(p&&p.catch)p.catch(function(){v.classList.remove("on");});}
if(a.readyState>=1)go();else{a.addEventListener("loadedmetadata",go,{once:true});a.load();}}
function here(){var i=cards.findIndex(function(c){return c.classList.contains("here");});return i;}
function mark(c,scroll){cards.forEach(function(o){o.classList.toggle("here",o===c);});
if(scroll){c.focus({preventScroll:true});c.scrollIntoView({block:"center"});}}
cards.forEach(function(c){[].forEach.call(c.querySelectorAll(".version"),function(v){
var a=audio(v),line=v.querySelector("i"),box=v.querySelector(".wavebox"),
button=v.querySelector("button");a.removeAttribute("controls");
button.setAttribute("aria-label",button.textContent+" of "+c.querySelector("h3").textContent);
button.addEventListener("click",function(){play(v);});
box.addEventListener("click",function(e){var r=box.getBoundingClientRect();
var share=(e.clientX-r.left)/r.width;
function seek(){play(v,share*(a.duration||0));}
if(a.readyState>=1)seek();else{a.addEventListener("loadedmetadata",seek,{once:true});a.load();}});
a.addEventListener("timeupdate",function(){
line.style.left=(a.duration?a.currentTime/a.duration*100:0)+"%";});
a.addEventListener("ended",function(){if(playing===v)stop();});});});
window.addEventListener("hashchange",function(){
var c=document.getElementById(location.hash.slice(1));if(c&&cards.indexOf(c)>=0)mark(c,true);});
document.addEventListener("keydown",function(e){
if(e.ctrlKey||e.metaKey||e.altKey||!cards.length)return;
var k=e.key.toLowerCase(),i=here();
if(k==="j"||k==="k"){e.preventDefault();
mark(cards[Math.max(0,Math.min(cards.length-1,i<0?0:i+(k==="j"?1:-1)))],true);}
else if(k==="1"||k==="2"||k==="3"){var c=cards[i<0?0:i];
var v=c.querySelectorAll(".version")[+k-1];if(v){e.preventDefault();play(v);}}
else if(k===" "&&playing){e.preventDefault();stop();}
else if(k==="escape")stop();});
})();
""".strip()
