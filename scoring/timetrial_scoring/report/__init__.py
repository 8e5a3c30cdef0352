"""The report: one HTML file that needs nothing beside it, and every figure as PNG, SVG and CSV.

`data` gathers what is shown, from scoring's own functions; `page` and `figures` only draw it. In the page report.js
draws, from the JSON inside, so that charts fit a phone and a wall, and the numbers are stored once.
"""
