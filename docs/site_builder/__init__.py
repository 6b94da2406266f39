"How the documentation site is made: see build.py"
