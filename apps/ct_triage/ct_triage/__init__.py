"""Chest CT triage in viral pneumonia: a CT study in, DICOM SEG and a TID 1500 report out.

The data flow, one module a step::

    series.find_series -> volume.read_volume -> lungs.segment_lungs -> lesions.segment_lesions
        -> severity.assess_severity -> followup_priors.follow_up_on
        -> seg.build_seg, report.build_report -> results.write_results

Every step is a plain function; :mod:`ct_triage.application` chains them as MONAI Deploy operators.
"""

__version__ = "0.1.0"
