"""Uses a chart as Helm does, without a cluster.

Usage: helm.py render CHART RELEASE VALUES   prints the objects as a stream of YAML, VALUES being JSON
       helm.py lint CHART                    prints what strict linting finds, as JSON
       helm.py package CHART FOLDER          packages it, and prints where
"""

import json
import sys

import helm_python

match sys.argv[1:]:
    case ["render", chart, release, values]:
        values = json.loads(values)
        loaded = helm_python.Chart.load(chart)
        rendered = loaded.render(values, name=release)
        for path, text in rendered.items():
            if not path.endswith("NOTES.txt"):
                print("---", text, sep="\n")
    case ["lint", chart]:
        print(json.dumps(helm_python.lint(chart, strict=True)))
    case ["package", chart, folder]:
        print(helm_python.package(chart, destination=folder))
    case _:
        sys.exit(__doc__)
