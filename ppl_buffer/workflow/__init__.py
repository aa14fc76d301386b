"""From a table of trials to a report: the hierarchical fit, its report, the command line."""
