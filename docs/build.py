"Build the site: `python docs/build.py [FOLDER]` makes FOLDER/html, by default _docs/html"
import sys
from pathlib import Path
from site_builder.build import build

if __name__ == '__main__': sys.exit(build(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent/'_docs').resolve()))
