# SPDX-License-Identifier: Apache-2.0
"""Generated training conversations: word lists, tasks and their mixing."""
