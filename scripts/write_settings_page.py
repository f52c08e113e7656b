"""Write docs/settings.md, the reference of all settings: python scripts/write_settings_page.py"""

from pathlib import Path

from vaegan.cli.help import markdown_page
from vaegan.cli.settings import Settings

ROOT = Path(__file__).parents[1]

if __name__ == "__main__":
    page = markdown_page(Settings(), ROOT / "conf")
    (ROOT / "docs" / "settings.md").write_text(page, encoding="utf-8")
