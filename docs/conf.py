"Sphinx' settings; every fact comes from settings.ini, pyproject.toml and the package"
import sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent))
import fastcf
from site_builder.pages import facts

_facts = facts()
project,copyright,html_theme,html_baseurl = (_facts[o] for o in ('title', 'copyright', 'theme', 'site'))
release = fastcf.__version__
extensions = ['myst_nb', 'sphinx_copybutton', 'site_builder.mathml']
myst_enable_extensions = ['attrs_block', 'attrs_inline', 'colon_fence', 'deflist', 'dollarmath']
myst_heading_anchors = 4
nb_execution_mode = 'off'
suppress_warnings = ['myst.header'] # a notebook's sections may start a level down
smartquotes = False
add_module_names = False
toc_object_entries_show_parents = 'hide'

html_title = f"{project} {release}"
html_static_path = ['_static']
html_css_files,html_js_files = ['site.css'],['site.js']
html_logo,html_favicon = '_static/logo.svg','_static/logo.svg'
html_copy_source = False
html_show_sphinx,html_domain_indices = False,False
pygments_style,pygments_dark_style = 'a11y-high-contrast-light','a11y-high-contrast-dark'
copybutton_exclude = '.linenos, .gp'
html_theme_options = dict(source_repository=_facts['repo'], navigation_with_keys=True, top_of_page_buttons=[],
    footer_icons=[dict(name='GitHub', url=_facts['repo'], html='GitHub', **{'class': ''})])

def _captions(app, pagename, templatename, context, doctree):
    "The sidebar's captions are headings, and a heading has a level"
    if tree := context.get('furo_navigation_tree'): context['furo_navigation_tree'] = tree.replace('role="heading"', 'role="heading" aria-level="2"')

def setup(app):
    app.config.html_extra_path = [str(Path(app.srcdir).parent/'extra')]
    app.connect('html-page-context', _captions, priority=900) # after the theme's own
