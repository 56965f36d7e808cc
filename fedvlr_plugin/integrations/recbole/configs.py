"""The former place of `config_path`, for one release: scripts of users import it from here."""

from fedvlr_plugin.config_files import config_folder, config_names, config_path

__all__ = ["config_folder", "config_names", "config_path"]
