"""What a run says, as a page, a picture, a table for other programs, a push to Prometheus.

Figures come from `RunRecord.summary` and `stats/`; nothing here defines one. Pictures are scenes (`scene.py`)
that two backends draw: `svg.py` with nothing else, `png.py` with Pillow.

    sections       what the page says, in its order; page: what it is made of
    run_figures    runs with their names, figures and intervals
    distributions  latency_curves  timeline_plot  lanes  ratio_plot  search_plot  cost  frontier
                   one kind of picture each, with its table
    chart, axes    a frame with axes, and what good ticks are
    html_page      the page as one file
    csv_table      one row a request
    push           gauges for a Prometheus push gateway
"""
