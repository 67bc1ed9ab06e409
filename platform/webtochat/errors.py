"""What may go wrong, by whose fault: it decides the exit code and that no traceback is shown."""


class UserError(Exception):
    """A mistake that the user can mend. One line: what is wrong, then what to do. Exit code 2."""


class MachineError(Exception):
    """A fault of the machine (full disk, lost node). One line; running again goes on. Exit code 1."""
