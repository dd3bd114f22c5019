/** What a guardian may ask for, and how it may have been made sure who they are (16 CFR 312.5(b)). The database has the same words. */
export const guardianAsks = ["review", "erasure"] as const;
export const guardianRelations = ["parent", "guardian"] as const;
export const identityWays = [
  "signed_form",
  "payment",
  "telephone",
  "video",
  "in_person",
  "government_id",
  "questions",
  "face_match",
  "text_plus",
  "email_plus",
] as const;
