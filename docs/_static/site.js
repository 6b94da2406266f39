// What scrolls sideways can be reached by keyboard
const reachable = () => document.querySelectorAll('pre, .output, .table-wrapper, div.math, .cell_output > div').forEach(o => {
  if (o.scrollWidth > o.clientWidth) o.tabIndex = 0; else o.removeAttribute('tabindex')
})
addEventListener('load', reachable)
addEventListener('resize', reachable)
document.addEventListener('toggle', reachable, true)
