"""Cases that are not one refused file (good ones, uploads over HTTP, the store, the machine), and their tests.

Each is a test beside others of its kind, named by its file and function.
"""

from __future__ import annotations

ELSEWHERE: dict[str, tuple[str, ...]] = {
    "M01": ("test_preparation.py::test_a_keras_model_is_prepared_and_its_variant_answers_as_keras_does",),
    "M02": ("test_preparation_archive.py::test_a_deflated_archive_unpacks_to_the_same_bytes",),
    "M03": (
        "test_preparation.py::test_a_keras_model_is_prepared_and_its_variant_answers_as_keras_does",
        "test_preparation_config.py::test_the_training_configuration_is_dropped",
    ),
    "M04": ("test_preparation.py::test_a_keras_model_is_prepared_and_its_variant_answers_as_keras_does",),
    "M05": ("test_uploads.py::test_an_empty_file_is_refused",),
    "M08": ("test_uploads.py::test_an_announced_length_over_the_limit_is_refused_before_anything_is_read",),
    "M09": ("test_uploads.py::test_a_file_over_the_limit_is_refused_though_its_length_is_not_announced",),
    "M10": (
        "test_uploads.py::test_an_upload_that_breaks_off_leaves_nothing",
        "test_connections.py::test_a_body_that_only_drips_is_408_in_the_shape_of_its_path",
    ),
    "M53": ("hostile/test_flips.py::test_weights_with_flipped_bytes_are_refused_or_read_and_never_harm_the_parent",),
    "M61": (
        "test_uploads.py::test_the_same_bytes_again_are_the_version_that_is_there",
        "test_artifacts.py::test_the_same_bytes_are_kept_once_and_heal_a_damaged_file",
    ),
    "M62": ("test_uploads.py::test_a_name_outside_the_rule_is_refused",),
    "M63": (
        "test_uploads.py::test_an_upload_that_breaks_off_leaves_nothing",
        "test_artifacts.py::test_only_what_dead_writers_left_behind_is_swept",
    ),
    "M64": (
        "test_artifacts.py::test_one_flipped_bit_is_found",
        "test_runtimes.py::test_a_missing_or_damaged_artifact_is_not_loaded",
    ),
    "M65": ("test_artifacts.py::test_a_symbolic_link_is_refused_even_to_the_right_bytes",),
    "M66": (
        "hostile/test_uploads_of_saved_models.py::test_a_saved_model_is_not_taken",
        "test_savedmodel_uploads.py::test_a_savedmodel_that_does_more_than_compute_or_has_no_such_signature_is_refused",
    ),
    "M68": (
        "test_uploads.py::test_a_full_disk_is_said_to_be_full_and_keeps_nothing",
        "test_preparation_crashes.py::test_a_machine_in_trouble_puts_the_preparation_off_and_refuses_nothing",
    ),
    "M69": (
        "test_uploads.py::test_uploads_of_one_model_at_once_get_numbers_of_their_own",
        "test_preparation_schedule.py::test_new_work_is_due_and_is_claimed_once",
    ),
    "M70": (
        "test_preparation_crashes.py::test_a_preparation_that_was_killed_is_done_again_from_the_start",
        "test_preparation_crashes.py::test_a_preparation_that_was_killed_three_times_is_given_up",
        "test_preparation.py::test_a_model_whose_load_takes_too_long_ends_with_a_clear_message",
    ),
}
